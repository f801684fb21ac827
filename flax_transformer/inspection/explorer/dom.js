// Elements of the page. Text from a model or a person reaches the page through `append` and
// `textContent` only, and so stays text.

const SVG = "http://www.w3.org/2000/svg";

function byId(id) {
  return document.getElementById(id);
}

// Attributes that are null, undefined or false are left out. Children are elements or text.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

// Makes a list of elements one stop of the tab key: arrow keys move within it, and the element that
// has been moved to is where the tab key comes back to.
function rove(elements, current) {
  elements.forEach((element, index) => {
    element.tabIndex = index === Math.max(current, 0) ? 0 : -1;
  });
}

function percent(weight) {
  const rounded = Math.round(weight * 100);
  return rounded === 0 && weight > 0 ? "<1 %" : `${rounded} %`;
}

// A minus sign as wide as a plus.
function decimal(number, digits) {
  if (number === null || number === undefined) return "–";
  return number.toFixed(digits).replace("-", "−");
}
