"""Send requests and read answers over HTTP."""
