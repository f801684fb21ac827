"""Trains a translation model: python train.py --config configs/quickstart.py"""

if __name__ == "__main__":
    from flax_transformer.commands.main import run

    run("train")
