# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.*", "torch==2.15.*", "transformers==5.24.*"]
# ///
"""Writes the model of a GGUF as a folder of safetensors with tokenizer, dequantised and saved by `transformers`.

    python scripts/gguf_to_folder.py MODEL.gguf OUT [--dtype bfloat16] [--shard 200MB]

So one set of weights is there in both containers, and what a program makes of them can be compared.
"""

import argparse
import pathlib

import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--shard", default="200MB", help="largest file")
    arguments = parser.parse_args()
    folder, file = str(arguments.model.resolve().parent), arguments.model.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    weights = model.state_dict()
    # What was read is marked as quantised and refuses to be saved; the same numbers in a model of its own are not.
    del model.config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(model.config, dtype=getattr(torch, arguments.dtype))
    plain.load_state_dict(weights)
    plain.save_pretrained(arguments.out, max_shard_size=arguments.shard)
    tokenizer.save_pretrained(arguments.out)
    print(*sorted(path.name for path in arguments.out.iterdir()))


if __name__ == "__main__":
    main()
