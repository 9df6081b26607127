"""Between a browser and a web application in a workspace: addresses, headers, and HTTP and WebSocket on one stream."""
