"""Translates lines of text: python translate.py --workdir runs/quickstart < source > target"""

if __name__ == "__main__":
    from flax_transformer.commands.main import run

    run("translate")
