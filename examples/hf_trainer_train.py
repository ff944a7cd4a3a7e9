"""A small BERT from scratch with the Hugging Face Trainer, and `co2_eq_emissions` in its model card.

    python examples/hf_trainer_train.py --epochs 3 --directory out && head out/README.md
    python examples/hf_trainer_train.py --epochs 50 --budget "1 Wh"

Two lines are ours: the import, and `.attach`. Nothing is loaded from the Hub.
"""

from __future__ import annotations

import argparse

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from carbon_exporter import BudgetExceeded
from carbon_exporter.integrations.transformers import CarbonCallback

WORDS = 64


def data(rows: int) -> list[dict[str, torch.Tensor]]:
    """Sentences of twelve words; whether there are more of one kind than of the other is the label."""
    words = torch.randint(0, WORDS, (rows, 12), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": one, "labels": (one.float().mean() > WORDS / 2).long()} for one in words]


def network() -> BertForSequenceClassification:
    """Two layers, 32 wide."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, max_position_embeddings=16, **sizes))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--budget", metavar="AMOUNT", help='such as "1 Wh" or "5 g"')
    parser.add_argument("--directory", default="out", metavar="DIR")
    arguments = parser.parse_args()
    how = TrainingArguments(
        arguments.directory,
        num_train_epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=32,
        save_strategy="epoch",
        logging_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    carbon = CarbonCallback(
        dataset="more-or-less", training_type="pre-training", budget=arguments.budget, on_exceed="stop"
    )
    trainer = carbon.attach(Trainer(network(), how, train_dataset=data(arguments.rows)))
    try:
        trainer.train()
    except BudgetExceeded as exceeded:
        print(f"{exceeded.reason}; {arguments.directory} has what was learnt")
    trainer.create_model_card()


if __name__ == "__main__":
    main()
