// The search runs in a Worker, and browsers refuse Workers to pages that are opened from a folder. There a hidden frame runs the
// same script; messages go both ways, and importScripts gives a promise, which the search waits for.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow, base = document.createElement("base");
      base.href = location.href;
      inner.document.head.append(base);
      const load = (src) => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        script.src = src;
        script.onload = done;
        script.onerror = failed;
        inner.document.head.append(script);
      });
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) => urls.reduce((before, src) => before.then(() => load(src)), Promise.resolve());
      this.inner = inner;
      this.ready = load(url);
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new this.inner.MessageEvent("message", { data })));
    }

    terminate() {
      this.inner.frameElement.remove();
    }
  };
}
