from em_bench.api import Muon as Muon
from em_bench.api import SpectralCallback as SpectralCallback
from em_bench.api import evaluate as evaluate
from em_bench.api import margin as margin
from em_bench.api import spectral_penalty as spectral_penalty
from em_bench.api import spectrum as spectrum
from em_bench.api import train as train

__version__: str
RELEASED: str
