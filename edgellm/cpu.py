"""What this machine's processor can do, and which kernels are chosen for it.

A feature counts only if the processor has it and the operating system saves its registers. The same bits
come out of every instruction set; only the time differs.
"""

from edgellm import _core

__all__ = ["count", "features", "kernels", "runnable_isas"]


def features() -> list[str]:
    """List the processor features that kernels may use.

    Returns
    -------
    features : list of str
        Such as ``["avx2", "fma", "f16c", "avx512", "avx512_vnni"]``, or ``["neon", "dotprod"]`` on a
        Raspberry Pi 5; empty on a processor without any. ``"avx512"`` means AVX-512 F, BW, VL and DQ.

    Examples
    --------
    >>> isinstance(edgellm.cpu.features(), list)
    True
    """
    return _core.cpu_features()


def runnable_isas() -> list[str]:
    """List the instruction sets that this build has kernels for and this machine can run.

    Returns
    -------
    isas : list of str
        In increasing order of preference; the first is always ``"ref"``, portable C, the
        specification of all others. Each is accepted as ``isa=`` by `edgellm.load` and `edgellm.ops`.

    Examples
    --------
    >>> edgellm.cpu.runnable_isas()[0]
    'ref'
    """
    return _core.cpu_isas()


def kernels(isa: str | None = None, rows: int = 512, exact: bool = True) -> dict[str, str]:
    """Say which instruction set serves each operation.

    Parameters
    ----------
    isa : str, optional
        Cap: every operation takes its best kernel at or below it. Default: the best of this machine.
    rows : int
        Rows of activations (tokens) of a product. Below 9 the tile unit of "amx" is not used, since
        most of a tile would be empty; nothing else depends on it.
    exact : bool
        As in `edgellm.load`: False shows the kernels outside the arithmetic contract, "amxbf16", where
        this machine has them and `isa` is not below.

    Returns
    -------
    kernels : dict of str to str
        Operation, such as ``"gemm_q8_q4_0x16"``, to instruction set.

    Raises
    ------
    ValueError
        If `isa` is unknown or this machine cannot run it, or `rows` is not positive.

    Examples
    --------
    >>> set(edgellm.cpu.kernels("ref").values())
    {'ref'}
    """
    return _core.cpu_kernels(isa, rows, exact)


def count() -> int:
    """Count the CPUs that this process may run on: its affinity mask, not the machine's total.

    Returns
    -------
    count : int
        At least 1; the default number of threads.

    Examples
    --------
    >>> edgellm.cpu.count() >= 1
    True
    """
    return _core.cpu_count()
