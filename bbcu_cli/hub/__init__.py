"""Where weights come from: a file, the package, the cache of the Hugging Face hub, or the hub itself.

`locate` is the one entry point. Whatever it returns has been verified: the SHA-256 that the catalogue pins, and every
rule of the packed format. ``huggingface_hub`` is imported only in `client` and
`push`, inside functions, so that embedded weights cost neither its import nor a socket.
"""

from bbcu_cli.hub.catalogue import Catalogue, Entry, Serves, denoise_model, weights_dir
from bbcu_cli.hub.locate import Located, locate
from bbcu_cli.hub.reference import HubRef

__all__ = ["Catalogue", "Entry", "HubRef", "Located", "Serves", "denoise_model", "locate", "weights_dir"]
