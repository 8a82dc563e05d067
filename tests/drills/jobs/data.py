"""Make the files that jobs read, in the current directory: the names are the arguments."""

import random
import sys


def rows():
    random.seed(0)
    for number in range(800_000):
        key = f"key-{number * 7919 % 5_003}"
        yield number, key, random.randrange(1_000_000), f"a text that says {number}"


def csv(path):
    with open(path, "w") as file:
        file.write("id,key,amount,text\n")
        file.writelines(f"{number},{key},{amount},{text}\n" for number, key, amount, text in rows())


def parquet(path):
    import pyarrow
    import pyarrow.parquet

    number, key, amount, text = zip(*rows(), strict=True)
    kind = [n % 11 for n in number]
    columns = {"id": number, "key": key, "kind": kind, "amount": amount, "text": text}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=200_000)


def json(path):
    with open(path, "w") as file:
        for number in range(250_000):
            before = ", " if number else "["
            record = f'"name": "record {number}", "amount": {number % 97}, "tags": ["{number}"]'
            file.write(before + "{" + record + "}")
        file.write("]")


def xml(path):
    with open(path, "w") as file:
        file.write("<items>")
        for number in range(250_000):
            file.write(f'<item amount="{number % 97}"><name>item {number}</name></item>')
        file.write("</items>")


def h5(path):
    import h5py
    import numpy

    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (4_000, 4_000), "f8", chunks=(500, 500))
        for row in range(0, 4_000, 500):
            data[row : row + 500] = numpy.arange(row, row + 500)[:, None]


def onnx(path):
    import numpy
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = [numpy.full((64, 1_500), 0.01, numpy.float32)]
    weights += [numpy.full((1_500, 1_500), 0.001, numpy.float32)] * 2
    names = ["x", *(f"x{i}" for i in range(1, 6)), "y"]
    nodes = []
    for i in range(3):
        nodes.append(helper.make_node("MatMul", [names[2 * i], f"w{i}"], [names[2 * i + 1]]))
        nodes.append(helper.make_node("Tanh", [names[2 * i + 1]], [names[2 * i + 2]]))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "layers",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1_500])],
            [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    save(model, path)


for path in sys.argv[1:]:
    globals()[path.rpartition(".")[2]](path)
