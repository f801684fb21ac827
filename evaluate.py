"""Scores a trained model: python evaluate.py --workdir runs/quickstart"""

if __name__ == "__main__":
    from flax_transformer.commands.main import run

    run("evaluate")
