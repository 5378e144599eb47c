"""Names of augmented and exported versions lead to one photo; other names stay as they are."""

import pytest

from data_prep.photo_names import copied_name, original_name, time_in_name

VERSIONS = [
    "\nIMG_9689 ",
    " IMG_9689_augmented_1_jpg.rf.0a ",
    " IMG_9689_png.rf.1b ",
    " IMG_9689_jpeg_jpg.rf.2c ",
    "\nIMG_9689_jpg.rf.3d_jpg.rf.4e ",
    " IMG_9689_aug_3 ",
    " IMG_9689_aug12 ",
    " IMG_9689_aug_0_1234 ",
    " aug_IMG_9689 ",
    "\naug_3_IMG_9689 ",
    " IMG_9689-augmentation-4 ",
    " IMG_9689_flip ",
    " IMG_9689_hflip ",
    " IMG_9689_flip_lr ",
    "\nIMG_9689-horizontal-flip ",
    " IMG_9689_mirrored ",
    " flipped_IMG_9689 ",
    " IMG_9689_rot90 ",
    " IMG_9689_rot_270 ",
    "\nIMG_9689_rotated_15 ",
    " IMG_9689_180deg ",
    " rot90_IMG_9689 ",
    " IMG_9689_flip_rot90_aug1 ",
    " IMG_9689_blur ",
    "\nIMG_9689_gaussian_noise_2 ",
    " IMG_9689_bright ",
    " IMG_9689_darker ",
    " IMG_9689_crop_2 ",
    " IMG_9689_copy ",
    "\nsteel_original_IMG_9689.jpg_12345678-1234-1234-1234-123456789abc ",
    " IMG_9689 - Copy ",
    " IMG_9689 - Copy (2) ",
    "\nIMG_9689 copy 2\n",
]
PHOTOS = [
    "\nIMG_0001 ",
    " frame_0012 ",
    " rolled-in_scale_177 ",
    " pitted_surface_296 ",
    " wood_rot_12 ",
    " wood_rot_90 ",
    " spot_dark ",
    "\nspot_bright ",
    " DJI_0012 ",
    " exp1_num_135544 ",
    " crack_crop_3 ",
    " video_mp4-12 ",
    " 20230605_164803 ",
    " tower.rf.12 ",
    "\ncam2_180 ",
    " flip_12 ",
    " noise_003 ",
    " blur_001 ",
    " rotor_3 ",
    " grey_iron_12 ",
    " transformer_12 ",
    " copy_12 ",
    " IMG_1_HDR\n",
    " 1_2_3 ",
    " 10 ",
    " a ",
    " image (3)\n",
]


@pytest.mark.parametrize("name", VERSIONS)
def test_versions_lead_to_one_photo(name: str) -> None:
    assert original_name(name.strip()) == "IMG_9689"


@pytest.mark.parametrize("name", PHOTOS)
def test_other_names_are_photos_of_their_own(name: str) -> None:
    assert original_name(name.strip()) == name.strip()


def test_numbered_copies() -> None:
    assert (copied_name("a1 (2)"), copied_name("a1(12)"), copied_name("a1_2")) == ("a1", "a1", None)


@pytest.mark.parametrize(
    "name",
    [
        "IMG20230605164803",
        "IMG_20230605_164803",
        "DJI_20230605164803_0001",
        "2023-06-05_16-48-03",
        "2023-06-05T16:48:03",
        "WhatsApp Image 2023-06-05 at 16.48.03",
        "IMG20230605164803_01",
        "IMG20230605164803_jpg.rf.0a1b",
        "cam1_1685983683",
        "1685983683000",
        "1685983683.000123",
    ],
)
def test_times_in_names(name: str) -> None:
    later = time_in_name("PXL_20230605_164804250")
    found = time_in_name(name)
    assert later is not None and found is not None and later - found == 1.25


@pytest.mark.parametrize(
    "name",
    [
        "DSC_0012",
        "IMG-20230605-WA0012",
        "20231332_164803",
        "1234202306051648031",
        "exp6_num_354402",
        "20191203001",
        "3_jpg.rf.05d1623456789c0ab",
    ],
)
def test_names_without_a_time(name: str) -> None:
    assert time_in_name(name) is None
