"""No images: what stands for the OOD set where no detector judges any."""

from dataclasses import dataclass

from progip.datasets.base import Dataset, Images
from progip.errors import ProgipError


@dataclass(kw_only=True)
class NoImages(Dataset):
    """The OOD set of campaigns with ``ood_method=none``. It has no images, whatever its options."""

    classes: int = 1

    def train_images(self) -> Images:
        raise self._asked()

    def test_images(self) -> Images:
        raise self._asked()

    def _asked(self) -> ProgipError:
        return ProgipError(
            f"dataset '{self.name}' has no images; it serves as ood_dataset of ood_method=none "
            "alone. Choose another dataset"
        )
