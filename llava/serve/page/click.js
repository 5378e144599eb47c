// Tells the server where the photo was clicked or touched, in its pixels; a mark stands there at once.
element.addEventListener("click", (event) => {
  const drawing = element.querySelector("svg");
  if (!drawing) return;
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
  const { width, height } = drawing.viewBox.baseVal;
  if (x < 0 || y < 0 || x > width || y > height) return;
  const mark = document.createElementNS(drawing.namespaceURI, "circle");
  Object.entries({ cx: x, cy: y, r: Math.max(width, height) / 100, class: "click" }).forEach(([key, value]) => mark.setAttribute(key, value));
  drawing.append(mark);
  trigger("input", { x, y });
});
