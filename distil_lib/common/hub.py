"""What can go wrong while something is loaded from the Hub or a folder, as one message."""

import httpx

CLIENT_ERROR = httpx.HTTPError  # `huggingface_hub` asks through httpx
