// The search of the built book runs in a Worker, which browsers refuse to pages read from the disk.
// For those: the same script in a hidden frame, with the messages passed by events.
if (location.protocol === 'file:') window.Worker = class extends EventTarget {
  constructor(url) {
    super()
    const frame = document.body.appendChild(document.createElement('iframe'))
    frame.hidden = true
    const inner = frame.contentWindow, queue = []
    inner.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}))
    const send = data => inner.dispatchEvent(new MessageEvent('message', {data}))
    this.postMessage = data => queue.push(data)
    const script = inner.document.createElement('script')
    script.src = new URL(url, document.baseURI)
    script.onload = () => { this.postMessage = send; queue.forEach(send) }
    script.onerror = event => this.dispatchEvent(new ErrorEvent('error', {message: event.type}))
    inner.document.body.append(script)
  }
}
