"""What a user did wrong, said in one sentence."""


class UserError(Exception):
    """A wrong input: the message names the file, the field and the remedy in one sentence.

    The command line prints it without a traceback and exits with code 2. It never carries report text or pixels:
    messages end up in logs, and logs hold no patient data.
    """
