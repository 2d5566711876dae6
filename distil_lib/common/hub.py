"""What can go wrong while something is loaded from the Hub or a folder, as one message."""

from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

# The base of the HTTP library's errors: `huggingface_hub` 1 asks through httpx, 2 through httpx2.
CLIENT_ERROR: type[Exception] = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
# What `datasets` raises where a dataset cannot be had.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, CLIENT_ERROR, DatasetsError)
