"""The one error a user is meant to read."""


class UserError(ValueError):
    """Something the user can mend: the text says what, where, what was expected and what to do."""
