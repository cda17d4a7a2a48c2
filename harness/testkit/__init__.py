"""The conformance kit: what a transport promises, one check for each promise, for any plugin and any test runner."""

from harness.testkit.data import Broken, CommandContract, DataContract, Outcome, contract_for, run, sentence

__all__ = ["Broken", "CommandContract", "DataContract", "Outcome", "contract_for", "run", "sentence"]
