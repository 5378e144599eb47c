// The photo of a card as large as the window. A box is drawn over it with a mouse, a pen or a finger.
const SVG = "http://www.w3.org/2000/svg";

// Shows a person's box on a picture in place of the survey's. `box` is [x1, y1, x2, y2] in 0..1 of the photo, null
// for none, and undefined where the survey's stands.
const drawBox = (picture, box) => {
  picture.classList.toggle("redrawn", box !== undefined);
  picture.querySelectorAll("svg.drawn").forEach((drawing) => drawing.remove());
  if (!box) return;
  const drawing = document.createElementNS(SVG, "svg");
  const attributes = { class: "drawn", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" };
  for (const [name, value] of Object.entries(attributes)) drawing.setAttribute(name, value);
  const [x, y, right, bottom] = box;
  for (const style of ["under", "drawn"]) {
    const rectangle = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ class: style, x, y, width: right - x, height: bottom - y }))
      rectangle.setAttribute(name, value);
    drawing.append(rectangle);
  }
  picture.append(drawing);
};

// Makes the large view out of the element `view`, and calls `drawn` with each box that is drawn.
const makeLargeView = (view, drawn) => {
  const LEAST = 4; // pixels of the screen: what is smaller was a click
  const stage = view.querySelector(".stage"), sheet = view.querySelector(".picture");
  const hint = document.getElementById("hint"), unbox = document.getElementById("unbox");
  let card = null, box, image = null, from = null;

  // The photo itself, where it still lies beside the page and the browser can open it; the small picture until then.
  const loadPhoto = async (small, address) => {
    const photo = new Image();
    photo.src = address;
    try {
      await Promise.all([photo.decode(), small.decode()]);
      const shape = ({ naturalWidth, naturalHeight }) => naturalWidth / naturalHeight;
      // of some files a browser does not know which side is up
      if (Math.abs(shape(photo) / shape(small) - 1) > 0.05) throw new Error("turned");
      if (image === small) small.src = photo.src;
    } catch {
      if (image === small) hint.textContent += " This is the small picture: the photo itself cannot be opened from here.";
    }
  };
  const fit = () => image && sheet.style.setProperty("--shape", image.naturalWidth / image.naturalHeight || 1);

  const draw = (shown) => {
    drawBox(sheet, shown);
    unbox.hidden = !sheet.querySelector("svg.drawn") && (shown === null || !card.dataset.box);
  };
  const show = (next, shown) => {
    box = shown;
    if (next !== card) {
      card = next;
      from = null;
      sheet.replaceChildren(...[...card.querySelector(".picture").children].map((part) => part.cloneNode(true)));
      image = sheet.querySelector("img");
      hint.textContent = image ? "Drag over the photo to draw a box around what is there." : "";
      if (image) {
        image.loading = "eager";
        image.draggable = false;
        image.addEventListener("load", fit);
        fit();
        loadPhoto(image, card.querySelector("figcaption a").href);
      }
    }
    draw(box);
  };

  const point = (event) => {
    const { left, top, width, height } = sheet.getBoundingClientRect();
    const inside = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1e5) / 1e5;
    return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
  };
  // The box from where the pointer went down to where it is, null where it is too small to be meant.
  const dragged = (event) => {
    const [x, y] = point(event), { width, height } = sheet.getBoundingClientRect();
    const made = [Math.min(x, from[0]), Math.min(y, from[1]), Math.max(x, from[0]), Math.max(y, from[1])];
    return (made[2] - made[0]) * width < LEAST || (made[3] - made[1]) * height < LEAST ? null : made;
  };
  const stop = () => {
    from = null;
    draw(box);
  };
  stage.addEventListener("pointerdown", (event) => {
    if (!image) return;
    if (!event.isPrimary) return stop(); // two fingers enlarge
    if (event.button) return;
    event.preventDefault();
    from = point(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (from && event.isPrimary) draw(dragged(event) || box);
  });
  stage.addEventListener("pointerup", (event) => {
    if (!from || !event.isPrimary) return;
    const made = dragged(event);
    stop();
    if (made) drawn(made);
  });
  stage.addEventListener("pointercancel", stop);

  return {
    get isOpen() {
      return !view.hidden;
    },
    show,
    open: (...what) => {
      view.hidden = false;
      show(...what);
    },
    close: () => {
      view.hidden = true;
      card = image = from = null;
    },
  };
};
