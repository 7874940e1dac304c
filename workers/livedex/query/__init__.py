"""The query worker: parse > embed the query > one SQL function > answer."""
