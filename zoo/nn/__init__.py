"""Parts of which codecs are made: payload bits, quantisers, networks, diffusion."""
