// The search where a page was opened as a file: browsers start no worker from a file there, so it is
// started from its text. scripts/mkdocs_hooks.py writes that, and the index as a script.
if (location.protocol === "file:") {
  const source = new URL("../search/worker.js", document.currentScript.src);
  document.write(`<script src="${source}"></script>`);
  const NativeWorker = Worker;
  window.Worker = function () {
    const text = new Blob([window.searchWorker], { type: "text/javascript" });
    return new NativeWorker(URL.createObjectURL(text));
  };
}
