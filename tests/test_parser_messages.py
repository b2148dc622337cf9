"""Messages of the option parser as a user reads them."""

import pytest

from crossray.parser_messages import plain_message

NAMES = ["trainer.precision", "trainer.max_epochs", "model.backbone.name", "stages.epochs", "out", "model"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Parser key \"trainer.precision\":\n  Expected a typing.Literal['32', 'bf16']. Got value: bf61",
         "trainer.precision is 'bf61'; choose one of 32, bf16 (did you mean 'bf16'?)"),
        ("Parser key \"trainer.precision\": Expected a typing.Literal['32', 'bf16']. Got value: 32",
         "trainer.precision is a number; put it in quotation marks: '32'"),
        ("Parser key \"trainer.max_epochs\": Expected a <class 'int'>. Got value: three",
         "trainer.max_epochs is 'three'; give a whole number"),
        ("Parser key \"optimizer.betas\": Expected a tuple with 2 elements. Got value: [1]",
         "optimizer.betas is '[1]'; give a list of 2 values"),
        ("Parser key \"stages\":\n  Problem with given class_path 'crossray.training.config.Stage':\n"
         "    Parser key \"mode\": Expected a typing.Literal['max', 'min']. Got value: mx",
         "stages.mode is 'mx'; choose one of max, min (did you mean 'max'?)"),
        ("Parser key \"stages\": Problem with given class_path 'crossray.training.config.Stage': "
         "Option 'epoch' is not accepted", "there is no field 'stages.epoch' (did you mean 'stages.epochs'?); REMEDY"),
        ("Group 'model' does not accept option 'backbone.nme'",
         "there is no field 'model.backbone.nme' (did you mean 'model.backbone.name'?); REMEDY"),
        ("unrecognized arguments: --model.backbone.nme x",
         "there is no option --model.backbone.nme (did you mean '--model.backbone.name'?); REMEDY"),
        ("unrecognized arguments: --colour=red", "there is no option --colour; REMEDY"),
        ("unrecognized arguments: oops", "the argument 'oops' is not expected; REMEDY"),
        ("argument command: invalid choice: 'tran' (choose from 'train', 'label')",
         "there is no command 'tran'; choose one of train, label (did you mean 'train'?)"),
        ("Parser key \"published\": Does not validate against any of the Union subtypes Subtypes: "
         "[typing.Literal['iu-xray', 'mimic-cxr'], <class 'NoneType'>] Errors: - Expected a typing.Literal['iu-xray', "
         "'mimic-cxr'] - Expected a <class 'NoneType'> Given value type: <class 'str'> Given value: iu_xray",
         "published is 'iu_xray'; choose one of iu-xray, mimic-cxr (did you mean 'iu-xray'?)"),
        ("argument --out: expected one argument", "--out needs a value; REMEDY"),
        ("Something else of <class 'int'>.", "Something else of a whole number; REMEDY"),
    ],
)  # fmt: skip
def test_a_message_names_field_value_and_remedy(said: str, expected: str) -> None:
    assert plain_message(said, NAMES, "REMEDY") == expected
