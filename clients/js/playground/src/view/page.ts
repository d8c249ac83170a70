/** The page's elements, as index.html has them. */

/** Throws where the page has no such element: page and script are then not of one build. */
export function at<Kind extends Element = HTMLElement>(selector: string, root: ParentNode = document): Kind {
  const found = root.querySelector<Kind>(selector);
  if (found === null) throw new Error(`the page has no ${selector}`);
  return found;
}

export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  className = "",
  text = "",
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  if (className !== "") made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** Rows of a definition list: name, value, and whether it is bad news. */
export type Fact = readonly [name: string, value: string, isBad?: boolean];

/** Only what differs is touched: the list is filled at every frame. */
export function fill(list: Element, facts: readonly Fact[]): void {
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  facts.forEach(([name, value, isBad = false], index) => {
    let row = list.children[index];
    if (row === undefined) {
      row = element("div");
      row.append(element("dt"), element("dd"));
      list.append(row);
    }
    const [term, detail] = [row.firstElementChild, row.lastElementChild];
    if (term !== null && term.textContent !== name) term.textContent = name;
    if (detail !== null && detail.textContent !== value) detail.textContent = value;
    detail?.classList.toggle("bad", isBad);
  });
}

export function seconds(milliseconds: number | null): string {
  return milliseconds === null ? "–" : `${(milliseconds / 1000).toFixed(milliseconds < 995 ? 2 : 1)} s`;
}

export function percent(share: number | null): string {
  return share === null ? "–" : `${Math.round(100 * share)} %`;
}
