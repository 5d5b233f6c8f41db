// The search runs in a worker, which browsers refuse to pages that were opened from a disk. There it runs in a hidden
// frame instead. On a server nothing of this happens.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = "<!doctype html>"
      this.frame.onload = () => this.start(new URL(url, location.href).href)
      document.documentElement.append(this.frame)
    }

    start(url) {
      const inside = this.frame.contentWindow
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = inside.document.createElement("script")
      script.src = url
      script.onload = () => {
        this.send = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }))
        this.waiting.forEach(this.send)
      }
      inside.document.head.append(script)
    }

    postMessage(data) {
      this.send ? this.send(data) : this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
