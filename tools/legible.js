// What is hard to read below an element of a page, as [text or tag, why]. Text needs a contrast of
// 3 to what is behind it (WCAG 2.1, 1.4.3, large text); pictures and tables may not be cut off.
root => {
  // not the page's: JupyterLab's own prompts and colours of code
  const others = 'script,style,title,.cm-editor,.jp-RenderedMarkdown pre,.jp-InputPrompt,' +
    '.jp-OutputPrompt'
  const all = e => e ? [e, ...all(e.parentElement)] : [] // with what it stands in
  const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v*a + below[i]*(1 - a))
  const numbers = color => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number)
    return [r, g, b, a]
  }
  const luminance = color => {
    const [r, g, b] = color.map(v => (v /= 255) <= 0.03928 ? v/12.92 : ((v + 0.055)/1.055)**2.4)
    return 0.2126*r + 0.7152*g + 0.0722*b
  }
  const isShape = e => e instanceof SVGElement && e.tagName != 'svg'
  const paint = e => { // what an element paints its area with, or null
    const style = getComputedStyle(e), color = isShape(e) ? style.fill : style.backgroundColor
    if (!/^rgb/.test(color)) return null
    const [r, g, b, a] = numbers(color)
    return [r, g, b, isShape(e) ? a*style.fillOpacity*style.opacity : a]
  }
  const behind = (e, range) => { // shapes lie over each other in any order: ask for the place
    if (!isShape(e)) return all(e)
    e.scrollIntoView({block: 'center', inline: 'center'})
    const {x, y, width, height} = range.getBoundingClientRect()
    return document.elementsFromPoint(x + width/2, y + height/2)
      .filter(other => !['text', 'tspan'].includes(other.tagName))
  }
  const contrast = (e, range) => {
    const layers = behind(e, range).map(paint).filter(Boolean).reverse()
    const back = layers.reduce((below, color) => over(color, below), [255, 255, 255])
    const style = getComputedStyle(e), [r, g, b, a] = numbers(isShape(e) ? style.fill : style.color)
    const faded = all(e).reduce((share, other) => share*getComputedStyle(other).opacity, a)
    const two = [luminance(over([r, g, b, faded], back)), luminance(back)].sort((p, q) => p - q)
    return (two[1] + 0.05)/(two[0] + 0.05)
  }
  const isHidden = (e, range) => !range.getClientRects().length ||
    getComputedStyle(e).visibility == 'hidden' || all(e).some(o => getComputedStyle(o).opacity == 0)
  const found = [], words = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
  while (words.nextNode()) {
    const word = words.currentNode, e = word.parentElement, range = document.createRange()
    range.selectNodeContents(word)
    if (!word.data.trim() || e.closest(others) || isHidden(e, range)) continue
    const value = contrast(e, range)
    if (value < 3) found.push([word.data.trim().slice(0, 40), `contrast ${value.toFixed(1)}`])
  }
  const edge = root.getBoundingClientRect().right + 2
  for (const e of root.querySelectorAll('img,table,svg'))
    if (e.getBoundingClientRect().right > edge
        && !all(e).some(other => getComputedStyle(other).overflowX == 'auto'))
      found.push([e.tagName, 'is wider than the page'])
  return found
}
