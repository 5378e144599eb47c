"""The words of the tab that cuts out and paints, in English, Korean and Russian."""

from __future__ import annotations

MAKING_WORDS: dict[str, tuple[str, str, str]] = {
    "make": ("Make a defect", "결함 만들기", "Создать дефект"),
    "label_photos": ("Label", "라벨", "Разметка"),
    "make_intro": (
        "Click on the place in your photo, say in words what shall be there, and keep what looks right: with"
        " its mask and label, to train on.",
        "사진에서 위치를 클릭하고 무엇이 있어야 하는지 적으세요. 제대로 된 것은 마스크와 라벨과 함께 보관해"
        " 학습에 씁니다.",
        "Щёлкните место на фото, опишите словами, что там должно быть, и сохраните удачное: с маской и"
        " меткой, для обучения.",
    ),
    "label_intro": (
        "Click on each defect in your photo and name it: the labels have its outline, to the pixel.",
        "사진의 결함을 하나씩 클릭하고 이름을 적으세요. 라벨에는 픽셀 단위 윤곽이 담깁니다.",
        "Щёлкните каждый дефект на фото и назовите его: в метках будет его контур, с точностью до пикселя.",
    ),
    "make_click": (
        "Then click on the thing; more clicks make it more exact.",
        "그다음 대상을 클릭하세요. 더 클릭하면 더 정확해집니다.",
        "Затем щёлкните предмет; новые щелчки уточняют его.",
    ),
    "make_corners": (
        "Then click on two corners of a box around the thing.",
        "그다음 대상을 둘러싼 상자의 두 모서리를 클릭하세요.",
        "Затем щёлкните два угла рамки вокруг предмета.",
    ),
    "make_out": (
        "The next clicks are on what is not part of it",
        "다음 클릭은 대상이 아닌 곳",
        "Следующие щелчки — по тому, что к нему не относится",
    ),
    "make_undo": ("Undo click", "클릭 취소", "Отменить щелчок"),
    "make_clear": ("Clear clicks", "클릭 모두 지우기", "Убрать щелчки"),
    "make_looks": ("Looking at the photo …", "사진을 보는 중 …", "Фото изучается …"),
    "make_drawing": (
        "what is cut out of the photo, and the clicks",
        "사진에서 오려낸 것과 클릭",
        "что вырезано из фото, и щелчки",
    ),
    "make_wish": ("What shall be there", "그곳에 있어야 할 것", "Что там должно быть"),
    "make_wish_hint": ("a burn mark on the disc", "a burn mark on the disc", "a burn mark on the disc"),
    "make_wish_info": (
        "In English, which is what most diffusion models read.",
        "영어로 적으세요. 확산 모델은 대부분 영어만 이해합니다.",
        "По-английски: другие языки модели диффузии почти не понимают.",
    ),
    "make_keywords": ("Keywords of the photo", "사진의 키워드", "Ключевые слова фото"),
    "make_keywords_hint": (
        "overcast, wet glass (may be empty)",
        "overcast, wet glass (선택)",
        "overcast, wet glass (необязательно)",
    ),
    "make_describe": ("Let the model name them", "모델이 키워드 찾기", "Пусть назовёт модель"),
    "make_name": (
        "Its class, as your annotations name it",
        "클래스 이름 (주석에서 쓰는 이름)",
        "Его класс, как в вашей разметке",
    ),
    "make_name_hint": ("flashover", "flashover", "flashover"),
    "make_invert": (
        "Paint all around it, and keep the thing",
        "대상은 두고 주변을 모두 그리기",
        "Рисовать всё вокруг, а предмет оставить",
    ),
    "make_seed": ("Seed", "시드", "Зерно"),
    "make_seed_hint": (
        "empty: another picture each time",
        "비우면 매번 다른 그림",
        "пусто: каждый раз другая картина",
    ),
    "make_strength": ("Strength", "강도", "Сила"),
    "make_strength_info": (
        "below 1 the photo shines through: 0.6 keeps the shape of what is there",
        "1보다 작으면 사진이 비칩니다. 0.6이면 원래 형태가 남습니다",
        "меньше 1 — фото просвечивает: 0,6 оставляет форму того, что есть",
    ),
    "make_steps": ("Steps: more take longer", "단계: 많을수록 오래 걸립니다", "Шаги: чем больше, тем дольше"),
    "make_paint": ("Paint", "그리기", "Нарисовать"),
    "make_waits": (
        "Waiting until the model is free …",
        "모델을 쓸 수 있을 때까지 기다리는 중 …",
        "Модель занята, ждём …",
    ),
    "make_state": ("Step {step} of {steps}", "{steps}단계 중 {step}", "Шаг {step} из {steps}"),
    "make_used": (
        "Prompt: {prompt} · seed {seed}",
        "프롬프트: {prompt} · 시드 {seed}",
        "Запрос: {prompt} · зерно {seed}",
    ),
    "make_before": ("The photo", "사진", "Фото"),
    "make_after": ("Painted", "그린 것", "Нарисовано"),
    "make_place_before": ("The place, before", "위치, 전", "Место, до"),
    "make_place_after": ("The place, after", "위치, 후", "Место, после"),
    "make_keep": ("Keep it", "보관", "Сохранить"),
    "make_download": (
        "Download {count} picture(s) with masks and labels",
        "그림 {count}개를 마스크, 라벨과 함께 내려받기",
        "Скачать картины ({count}) с масками и метками",
    ),
    "make_then": (
        "Unpack it, and convert your photos with --synthetic made: those made of training photos are trained"
        " on.",
        "압축을 풀고 사진을 --synthetic made와 함께 변환하세요. 학습 사진으로 만든 것만 학습에 쓰입니다.",
        "Распакуйте и преобразуйте свои фото с --synthetic made: обучают на том, что сделано из обучающих.",
    ),
    "label_add": ("Add the label", "라벨 추가", "Добавить метку"),
    "label_undo": ("Undo label", "라벨 취소", "Отменить метку"),
    "label_then": (
        "Put it beside the photo: it is LabelMe's form, which convert reads. It must name all that the photo"
        " shows.",
        "사진 옆에 두세요. convert가 읽는 LabelMe 형식입니다. 사진에 보이는 모든 것을 담아야 합니다.",
        "Положите рядом с фото: это формат LabelMe, его читает convert. Там должно быть всё, что видно на"
        " фото.",
    ),
    "make_no_mask": (
        "Click on the photo first.",
        "먼저 사진을 클릭하세요.",
        "Сначала щёлкните по фото.",
    ),
    "make_no_wish": (
        "Say what shall be there.",
        "무엇이 있어야 하는지 적으세요.",
        "Напишите, что там должно быть.",
    ),
    "make_bad_seed": (
        "The seed is a number from 0 to {most}.",
        "시드는 0에서 {most} 사이의 수입니다.",
        "Зерно — число от 0 до {most}.",
    ),
    "make_no_name": ("Name its class.", "클래스 이름을 적으세요.", "Назовите его класс."),
}
