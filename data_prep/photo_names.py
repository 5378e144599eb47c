"""What the names of photos tell: which are versions of one photo, and when a photo was taken."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SUFFIX = r"(?:jpe?g|png|bmp|webp|tiff?|heic|heif)"
# `tower12_jpg.rf.0f2c...`: Roboflow writes each version of `tower12.jpg` under such a name.
_ROBOFLOW = re.compile(rf"(.+)[_.]{_SUFFIX}\.rf\.\w+", re.IGNORECASE)
# Augmentor writes `FOLDER_original_tower12.jpg_UUID`.
_AUGMENTOR = re.compile(
    rf".*?_original_(.+)\.{_SUFFIX}_[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}", re.IGNORECASE
)
_TURNS = (
    r"(?:(?:h|v|hv|horizontal|vertical|lr|ud)[_-]?)?(?:flip|mirror)(?:ped|ed)?(?:[_-]?(?:lr|ud|hv|vh|h|v|x|y"
    r"|horizontal(?:ly)?|vertical(?:ly)?|left[_-]?right|up[_-]?down))?"
    r"|rot(?:at(?:ed?|ion))?[_-]?-?(?:90|180|270)|rotat(?:ed?|ion)(?:[_-]?-?\d{1,3})?"
    r"|(?:90|180|270)[_-]?deg(?:rees?)?|transposed?"
)
_CHANGES = (
    r"(?:gaussian|motion|median)?[_-]?blur(?:red)?"
    r"|(?:gaussian|gauss|salt(?:[_-]?and)?[_-]?pepper|sp)?[_-]?nois[ey]"
    r"|(?:random[_-]?)?(?:bright(?:ness|er|en(?:ed)?)?|dark(?:er|en(?:ed)?)|contrast|gamma|saturat(?:ion|ed?)|hue)"
    r"|colou?r[_-]?jitter|gr[ae]y(?:scaled?)?|clahe|equali[sz]ed?|sharp(?:en(?:ed)?)|cutout|shear(?:ed)?"
    r"|zoom(?:ed)?|crop(?:ped)?|resized?|compressed|transform(?:ed)?|elastic"
)
_NUMBER = r"(?:[_-]?\d{1,3})?"
# What augmenting tools put behind a name. What is left must hold a digit, as names of photos do: `rot_90`
# behind a photo's name is a turn, but `wood_rot_90` is the 90th picture of rotten wood.
_TAIL = re.compile(
    rf"(.*\d.*?)[ _.-]+(?:(?:{_TURNS})|(?:{_CHANGES}){_NUMBER}|aug{_NUMBER}(?:[_-]\d{{1,6}})?"
    rf"|(?:-[ ]?)?copy(?:[ _-]?\(?\d+\)?)?)",
    re.IGNORECASE,
)
# A number behind one of these may as well number photos: `cam2_gray_12`, `lot7_blur_3`.
_NUMBERED = re.compile(rf".*\d.*?[ _.-]+(?:{_CHANGES})[_-]?\d{{1,3}}", re.IGNORECASE)
_AUGMENTED = re.compile(rf"(.+?)[ _.-]+augment(?:ed|ation){_NUMBER}(?:[_-]\d{{1,6}})?", re.IGNORECASE)
_HEAD = re.compile(
    rf"(?:(?:{_TURNS})|aug(?:ment(?:ed|ation))?(?:[_-]\d{{1,3}})?)[ _-]+([A-Za-z].*\d.*)",
    re.IGNORECASE,
)
# `tower12 (1)`: Windows' copy of `tower12`; pictures that were renamed together have such names as well.
_COPY = re.compile(r"(.+?) ?\(\d{1,2}\)")
_TIME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(?:[-_. T]|[ _-]at[ _-])?"
    r"(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?:[-_.]?(\d{3}))?(?!\d)"
)
# Seconds or milliseconds since 1970, of 2011 to 2030; cameras of machines and robots write them. Not within
# the hexadecimal digits of a hash.
_SINCE_1970 = re.compile(r"(?<![\da-f])(1[3-8]\d{8})[._]?(\d{3})?(?:\d{3}){0,2}(?![\da-f])", re.IGNORECASE)


def exported_photo(stem: str) -> str | None:
    """Return the name of the photo that Roboflow made an exported image from; None if it is no export."""
    match = _ROBOFLOW.fullmatch(stem)
    return None if match is None else original_name(match[1])


def original_name(stem: str) -> str:
    """Return the name of the photo that an image was made from, by what augmenting and exporting tools add
    to it: `tower12` for `tower12_augmented_2_jpg.rf.0f2c`, `tower12_flip`, `aug_tower12` or `tower12 - Copy`.

    Numbers alone are never taken for versions: `frame_001` and `frame_002` are two photos.
    """
    if match := _ROBOFLOW.fullmatch(stem):
        # Roboflow writes `tower12.jpeg.jpg` as `tower12_jpeg_jpg`.
        return original_name(re.sub(rf"[_.]{_SUFFIX}$", "", match[1], flags=re.IGNORECASE))
    for pattern in (_AUGMENTOR, _AUGMENTED, _TAIL, _HEAD):
        if match := pattern.fullmatch(stem):
            return original_name(match[1])
    return stem


def may_number_photos(stem: str) -> bool:
    """Tell whether the number at the end of a version's name may be a photo's, as in `cam2_gray_12`: then it
    is a version of `cam2` only where there is such a photo."""
    return _NUMBERED.fullmatch(stem) is not None


def copied_name(stem: str) -> str | None:
    """Return the name of the file that this may be a copy of, such as `tower12` for `tower12 (1)`."""
    match = _COPY.fullmatch(stem)
    return None if match is None else match[1]


def time_in_name(stem: str) -> float | None:
    """Return the time that a camera wrote into a photo's name, in seconds; None if there is none.

    Knows `IMG20230605164803`, `IMG_20230605_164803`, `DJI_20230605164803_0001`, `2023-06-05_16-48-03`,
    `PXL_20230605_164803123`, `cam1_1685983683` (seconds since 1970) and the like.
    """
    for match in _TIME.finditer(stem):
        seconds = as_seconds(match.groups()[:6], match[7])
        if seconds is not None:
            return seconds
    if found := _SINCE_1970.search(stem):
        return int(found[1]) + int(found[2] or 0) / 1000
    return None


def as_seconds(parts: tuple[str, ...], thousandths: str | None = None) -> float | None:
    """Return the seconds of a (year, month, day, hour, minute, second), None if there is no such time."""
    try:
        # All are read in one zone: only what lies between two times counts.
        year, month, day, hour, minute, second = map(int, parts)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp() + int(thousandths or 0) / 1000
