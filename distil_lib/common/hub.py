"""What can go wrong while something is loaded from the Hub or a folder, as one message."""

from huggingface_hub.errors import HfHubHTTPError

CLIENT_ERROR = HfHubHTTPError.__bases__[0]  # of whichever HTTP library `huggingface_hub` uses
