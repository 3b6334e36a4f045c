"""What all planes share: events, their encoding, sealing and chaining, topics and settings.

Nothing else of ours is imported here.
"""

VERSION = "0.1.0"
