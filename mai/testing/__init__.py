"""mai.testing: see whether a pipeline holds, whatever comes first and whatever fails.

::

    simulate, explore, Simulation, simulated     one seed is one interleaving, in virtual time
    FakeClock, fixed_chance                      time and chance as the test wants them
    Faults, point                                failures, pauses and death at named places
    Scripted, flaky, slow                        steps that stand in for real ones
    replay_check, crash_check                    durable runs that are interrupted on purpose
    SimulatedDisk, CopiedFolder, disk_check      what a disk keeps when the power fails
    module_trees, inputs                         Hypothesis strategies (extra ``testing``)
    mai.testing.plugin                           fixtures for pytest (extra ``testing``)

It imports neither pytest nor Hypothesis before they are asked for.
"""

from .clocks import FakeClock, fixed_chance
from .disk import SimulatedDisk, disk_check
from .durability import Lives, crash_check, replay_check
from .errors import Crash, Deadlock, DurabilityError, Leak, Livelock, SimulatedFault, SimulationError
from .exploration import Exploration, explore
from .fakes import Scripted, Seen, flaky, slow
from .faults import Block, Faults, point
from .folder import CopiedFolder, Disk
from .loop import LoopStep, SimulationLoop
from .simulated import simulated
from .simulation import Conditions, Simulation, Trial, simulate
from .trees import Tree, inputs, module_trees

__all__ = [
    "Block", "Conditions", "CopiedFolder", "Crash", "Deadlock", "Disk", "DurabilityError", "Exploration", "FakeClock",
    "Faults", "Leak", "Livelock", "Lives", "LoopStep", "Scripted", "Seen", "SimulatedDisk", "SimulatedFault",
    "Simulation", "SimulationError", "SimulationLoop", "Tree", "Trial", "crash_check", "disk_check", "explore",
    "fixed_chance", "flaky", "inputs", "module_trees", "point", "replay_check", "simulate", "simulated", "slow",
]  # fmt: skip
