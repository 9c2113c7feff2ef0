"""`python -m contrast3d` is the command line, as `contrast3d` is; so under torchrun."""

if __name__ == "__main__":
    from contrast3d.cli import program

    program()
