/* asv's pages ask for JSON with $.ajax, which browsers refuse to pages opened from disk. They do load
   scripts: benchmarks/site.py lays `x.json.js` beside every `x.json`, which says `asv_json = ...`. */
$.ajaxTransport("+json", function (options) {
    return {
        send: function (headers, done) {
            var script = document.createElement("script");
            script.src = options.url.replace(/\.json(\?|$)/, ".json.js$1");
            script.onload = function () {
                // The browser calls this right after the script, before any other.
                done(200, "success", {json: asv_json});
                script.remove();
            };
            script.onerror = function () {
                done(404, "not found");
            };
            document.head.appendChild(script);
        },
        abort: function () {}
    };
});
