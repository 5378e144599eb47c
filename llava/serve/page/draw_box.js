// Draw a box on the photo with the mouse, a pen or a finger; the server hears of it in pixels of the photo.
let start = null, frame = null;
const place = (event) => {
  const image = element.querySelector(".canvas img"), edge = image.getBoundingClientRect();
  const clip = (value) => Math.min(1, Math.max(0, value));
  return [clip((event.clientX - edge.left) / edge.width), clip((event.clientY - edge.top) / edge.height)];
};
const box = (end) => [0, 1].map((i) => Math.min(start[i], end[i])).concat([0, 1].map((i) => Math.max(start[i], end[i])));
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".canvas.boxable")) return;
  event.preventDefault();
  start = place(event);
  element.querySelectorAll(".drawn").forEach((old) => old.remove());
  frame = document.createElement("div");
  frame.className = "drawn";
  element.querySelector(".canvas").append(frame);
  element.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!start) return;
  const [x1, y1, x2, y2] = box(place(event));
  Object.assign(frame.style, {
    left: 100 * x1 + "%", top: 100 * y1 + "%", width: 100 * (x2 - x1) + "%", height: 100 * (y2 - y1) + "%",
  });
});
element.addEventListener("pointerup", (event) => {
  if (!start) return;
  const [x1, y1, x2, y2] = box(place(event)), image = element.querySelector(".canvas img").dataset;
  start = null;
  if (x2 - x1 < 0.01 && y2 - y1 < 0.01) frame.remove();
  const pixels = [x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height].map(Math.round);
  trigger("input", { box: x2 - x1 < 0.01 && y2 - y1 < 0.01 ? "" : pixels.join(", ") });
});
