"""Pruning: nothing that can be reached goes."""

import ast
import textwrap

import pytest

from pgolf.export.prune import prune


def tidy(text: str) -> str:
    return ast.unparse(ast.parse(textwrap.dedent(text)))


def test_what_is_named_stays_and_the_rest_goes():
    source = """
    import os, sys
    'first'
    A = 1
    B = A
    C = D = B
    'second'
    def forgotten(): return os.sep
    'third'
    def main(): return helper(C)
    def helper(x): return x
    """
    assert prune(textwrap.dedent(source), ["main"]) == tidy("""
    'first'
    A = 1
    B = A
    C = D = B
    'third'
    def main(): return helper(C)
    def helper(x): return x
    """)


@pytest.mark.parametrize(
    ("source", "stays"),
    [
        ("def main(): f()", True),
        ("def main(): pass", False),
        ("def other(): f()\ndef main(): pass", False),
        ("f()\ndef main(): pass", True),
        ("if __name__ == '__main__': f()\ndef main(): pass", False),
        ("@f\ndef filed(): pass\ndef main(): pass", True),
        ("@cache\ndef unfiled(): f()\ndef main(): pass", False),
        ("@a.no_grad()\ndef unfiled(): f()\ndef main(): pass", False),
        ("@unknown\ndef filed(): f()\ndef main(): pass", True),
        ("class A(Base):\n  def hook(self): f()\ndef main(): A()", True),
        ("class A(meta=Base):\n  def hook(self): f()\ndef main(): A()", True),
        ("class A:\n  def hook(self): f()\ndef main(): A()", False),
        ("class A:\n  def hook(self): f()\ndef main(): A().hook", True),
        ("class A:\n  def hook(self): f()\ndef main(): A().hook = 1", False),
        ("class A:\n  def hook(self): f()\ndef main(): A(hook=1)", False),
        ("class A:\n  def hook(self): f()\ndef main(): say('hook', A())", False),
        ("class A:\n  def hook(self): f()\ndef main(): getattr(A(), 'hook')", True),
        ("class A:\n  def hook(self): f()\ndef main(): getattr(A(), 'other')", False),
        ("class A:\n  def hook(self): f()\nX = ['hook']\ndef main(): getattr(A(), X[0])", True),
        ("class A:\n  def hook(self): f()\ndef main(): operator.methodcaller('hook')(A())", True),
        ("class A:\n  def __len__(self): f()\ndef main(): A()", True),
        ("class A:\n  x = f()\ndef main(): A()", True),
        ("class A:\n  x: f\ndef main(): A()", True),
        ("class A(f): pass\nclass B(A):\n  def hook(self): pass\ndef main(): B()", True),
    ],
)
def test_every_doubt_keeps(source, stays):
    assert ("def f()" in prune(f"{source}\ndef f(): pass", ["main"])) is stays


def test_a_method_of_a_class_below_a_frameworks_stays():
    source = """
    class Module(framework.Module): pass
    class Ours: x = 1
    class A(Ours):
        def hook(self): pass
    class B(Module):
        def hook(self): pass
    class C(A, B):
        def hook(self): pass
    def main(): A(), C()
    """
    assert prune(textwrap.dedent(source), ["main"]).count("def hook") == 2, "only A's may go"
