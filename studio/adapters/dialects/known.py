"""The dialects that are read, in the order in which a start of keys is looked up."""

from studio.adapters.dialects.comfy import COMFY
from studio.adapters.dialects.diffusers_names import DIFFUSERS
from studio.adapters.dialects.kohya import KOHYA
from studio.adapters.dialects.lycoris import LYCORIS
from studio.adapters.dialects.onetrainer import ONETRAINER
from studio.adapters.dialects.peft_names import PEFT
from studio.adapters.dialects.processors import PROCESSORS
from studio.adapters.dialects.xlabs import XLABS

DIALECTS = (DIFFUSERS, KOHYA, ONETRAINER, LYCORIS, COMFY, PEFT, XLABS, PROCESSORS)
