"""What the small data sets of tools/make_tiny_data.py show."""

tiny_classes = ('crescent', 'cross', 'disc', 'heart', 'ring', 'square', 'star', 'triangle')
