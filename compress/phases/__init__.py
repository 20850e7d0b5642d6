"""Several graphs of one decoder, each for the calls that it runs fastest."""
