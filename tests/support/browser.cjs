// For Debian's node 18: what browsers and later versions have by themselves.
globalThis.WebSocket ??= require('ws').WebSocket
globalThis.crypto ??= require('crypto').webcrypto
