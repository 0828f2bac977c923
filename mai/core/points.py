"""The seam for faults: named places at which a test lets the program fail, wait or die. Without a test they do nothing.

A place is worth a name where what happens next cannot be forced from outside: a thread that cannot start, a disk that
is full, a process that ends between two writes. `mai.testing.Faults` puts the faults there.
"""


class Points:
    """What happens at them: a test puts its own in the place of this."""

    def reach(self, name: str) -> object:
        """Do what is to happen where the program has come to the place *name*; return how long to wait, if it can."""


points: Points = Points()
