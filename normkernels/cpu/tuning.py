"""Every number that was measured: how much is taken at a time, and from which size on something else is done.

Those of the first part decide in which order sums are formed: another one changes the last bits.
"""

from pathlib import Path

# -- What the order of sums depends on

# Elements summed in the precision of the arithmetic before float64 takes over; 16 KB of float32 stay in L1
# for a second pass.
TILE = 4096
# The same for sums over rows: of dweight and dbias, and of columns.
ROWS_SUMMED = 128
# Bytes of elements that a loop takes at a time. 128 at first are no faster (rows of 24 to 1024 float32;
# Sapphire Rapids, with AVX-512 and as Haswell), and 64 leave twice the registers for sums. Without the width
# of 32 bytes, rows of 8 to 56 elements that are no multiple of 16 take 1.04 to 1.12 times as long.
WIDTHS = 64, 32, 16
# The dots of two rows of so few elements are taken together, which halves what their sums and weights cost
# (8 to 40 elements: 1.1 to 1.2 times the speed; 64: even).
PAIRED = 40
# Rows of so few elements are taken side by side, each in a lane of its own: those of 3 and of 5 take 0.40 and
# 0.56 of the time forward, 0.27 and 0.58 backward, those of 8 up to 1.2 times as long.
NARROW = 6
# Rows of columns that share one load and store of their sums.
ROWS_TOGETHER = 4
# Partial sums of dweight and dbias.
PARTIALS = 32

# -- Threads and memory

# Below this many bytes of one tensor threads cost what they save (decision 0017).
PARALLEL_BYTES = 256 * 1024
# Bytes of a cache line, and of a run from which on it is written faster past the caches, even where runs do
# not meet cache lines alike.
CACHE_LINE = 64
STREAM_RUN_BYTES = 512


def last_level_cache(caches: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache of processor 0, as Linux has it; 32 MB where that is not known."""
    try:
        sizes = [file.read_text().strip() for file in caches.glob("index*/size")]
    except OSError:
        sizes = []
    return max((int(size[:-1]) << 10 for size in sizes if size.endswith("K")), default=32 << 20)


# From this size on an output goes past the caches: below, what is read next is still there (decision 0017).
STREAM_BYTES = min(last_level_cache() // 8, 16 << 20)

# -- Rows

# Elements of rows that make one piece of work.
ROWS_PIECE = 32768
# Short rows are taken in batches of so many elements, statistics of all of them first: the divisions and the
# square root of one row then overlap with the loads of the next (rows of 128: 67 ns to 45 ns). Batches of
# 4096 elements leave L1 before they are normalized: 10 to 20 % slower.
BATCH = 512
# Longer rows leave the cache before they are normalized, so that it costs little to read them twice.
LONG_ROW = 1 << 20
# With fewer channels than this, or fewer long rows in a backward, their tiles are shared out instead.
FEW = 8
# Elements of a run below which every element of a group has a weight of its own.
SHORT_RUN_OF_GROUP = 32

# Positions of a tile, where rows lie side by side: fewer make runs too short for memory, more would leave L1
# with their sums. Runs of 64 or 128 take 1.3 to 2 times as long as those of 384, also where pieces leave the
# cache (4096 cols and more).
LEAST_POSITIONS, MOST_POSITIONS = 384, 2048

# -- Channels

# Elements of one piece of work that goes through an array from front to back.
PIECE = 65536
# What a block of neighbouring channels may hold, of long runs, and of columns and runs below SHORT_RUN, where
# threads have two blocks each at least: it is to stay in L2 until its output. Wider blocks make
# longer runs of memory, which columns need: (512, 4096) takes 1.1 to 1.2 times as long with half of theirs.
# Runs of 196 to 3136 elements are even or take 1.05 to 1.2 times as long with twice or four times as much.
# (256, 512) on one thread as one block instead of 16: 0.65 of the time.
BLOCK_BYTES = 512 * 1024
COLUMNS_BYTES = 1024 * 1024
# Elements of a run below which neighbouring runs are taken as one row, and of such a row: its constants and
# sums are to stay in the cache.
SHORT_RUN = 128
SEGMENT = 2048
# They are where half as many samples as a run has elements repay the constants (7 x 7, time with as without:
# 32 samples 0.8 to 0.96, 8 samples 1 to 1.5), and in arrays of so many bytes, whose runs lie too far apart
# (11 x 11, 32 samples of 2048 channels: 0.55; of 512: 1.04).
SCATTERED_BYTES = 16 << 20
# Rows of so many columns that neighbouring columns of all of them stay in the cache.
FEW_ROWS = 1024
# Fewer samples do not repay constants for every element of a sample, which take the room of four samples
# (512 channels of 7 x 7, 1 sample: 22 µs without them instead of 66).
SAMPLES = 3
# Columns whose sums are formed together: they are to stay in L1.
COLS = 2048
# Columns whose channels are finished together: what lies between stays in L1, on the stack.
FINISHED = 256

# -- Windows

# Into how many pieces the elements of a channel are divided at least, where there are few samples.
PARTS = 16
# Elements taken through all steps together; those of a window's channels are to stay in L1.
WINDOW_TILE = 1024
# Longer channels are taken in parts, so that those of a window stay in L1, and where there are few samples to
# share out, shorter ones too. Narrower parts than this are not worth their starts.
WIDEST_PART = 2 * WINDOW_TILE
NARROWEST_PART = 128
# Elements that the backward keeps of the terms of windows at least: all of a small sample.
TERMS = 16 * WINDOW_TILE
# Where a channel has fewer elements than a vector, the ends of a sample cost less with zeros around it.
SHORT_CHANNEL = 16
