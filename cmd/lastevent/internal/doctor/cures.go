package doctor

// What to do about problems. The proxies' configurations in deploy/ have none.
var (
	curesServer = []string{
		"Is the server up, and is this its URL, without /sse? A proxy must pass on /sse and all under it.",
		"403: start the server with --allow-host and the name in the URL. 401: give a token.",
	}
	curesPublish = []string{
		"A proxy must pass on POST as it is. 401 or 403: give a token that may publish to the stream, or a --stream that it may.",
	}
	curesBuffering = []string{
		"nginx: no proxy_ignore_headers X-Accel-Buffering, or proxy_buffering off;",
		"HAProxy: option http-no-delay, and no http-buffer-request or response filters",
		"Caddy: reverse_proxy { flush_interval -1 }",
		"Apache: ProxyPass … flushpackets=on",
		"else: have whatever stands between pass responses of text/event-stream on as they come",
	}
	curesCompression = []string{
		"nginx: no text/event-stream among gzip_types",
		"HAProxy: no text/event-stream in compression type",
		"Caddy: encode with a matcher that leaves /sse* out",
		"Apache: SetEnvIf Request_URI ^/sse no-gzip",
		"else: have whatever compresses heed Cache-Control: no-transform",
	}
	curesResume = []string{
		"nginx: no proxy_set_header Last-Event-ID; HAProxy: no http-request del-header Last-Event-ID; others likewise",
		"else: lastevent.js and lastevent tail send the ID in the query",
	}
	curesIdle = []string{
		"nginx: proxy_read_timeout 1m; HAProxy: timeout server 1m, timeout client 1m; Apache: ProxyTimeout 60",
		"else: have whatever stands between wait longer than the server's --heartbeat, or lower that",
		"cut although bytes came shortly before: something limits how long a response may last; clients resume, at the cost of a connection each time",
	}
	curesCut = []string{
		"Caddy: one newer than 2.6",
		"else: clients that come again after an end, too, as EventSource, lastevent.js and lastevent tail do",
	}
	curesOrigin = []string{
		"Have the server allow the origin, or serve the pages and the streams under one.",
		"A proxy must not take off Origin, nor Access-Control-Allow-Origin.",
	}
)
