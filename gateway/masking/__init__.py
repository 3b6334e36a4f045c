"""What a person without `see_clear` gets instead of classified values. Pure."""
