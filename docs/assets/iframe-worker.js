// A page that was opened from a disk may start no worker: there the script of the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      let waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      const hand = (data) => inner.dispatchEvent(new inner.MessageEvent("message", { data }));
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.postMessage = (data) => (waiting ? waiting.push(data) : hand(data));
      this.terminate = () => frame.remove();
      const script = inner.document.createElement("script");
      script.src = url;
      script.onload = () => { const early = waiting; waiting = null; early.forEach(hand); };
      inner.document.body.append(script);
    }
  };
}
