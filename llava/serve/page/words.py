"""The words of the page in English, Korean and Russian.

What stands on the page from the beginning is put into the browser's language by the browser (`text`); what is
said later, by the server (`Words`), which reads the same from the request.
"""

from __future__ import annotations

import gradio as gr
from gradio.i18n import I18nData

from llava.serve.page.making_words import MAKING_WORDS

LANGUAGES = ("en", "ko", "ru")

WORDS: dict[str, tuple[str, str, str]] = MAKING_WORDS | {
    "intro": (
        "Nothing is kept: photos and talks are wiped when you close this tab, or after {minutes} idle"
        " minutes.",
        "아무것도 저장하지 않습니다. 탭을 닫거나 {minutes}분 동안 사용하지 않으면 사진과 대화가 지워집니다.",
        "Ничего не сохраняется: фото и беседа стираются, когда вы закрываете вкладку, или через"
        " {minutes} мин. бездействия.",
    ),
    "chat": ("Chat", "대화", "Беседа"),
    "talk": ("Talk about photos", "사진에 대한 대화", "Беседа о фотографиях"),
    "empty": (
        "Add a photo below and ask about it.",
        "아래에서 사진을 추가하고 질문하세요.",
        "Добавьте фото внизу и задайте вопрос.",
    ),
    "question": (
        "Your question, with or without a photo",
        "질문 (사진은 선택)",
        "Ваш вопрос, с фото или без",
    ),
    "ask_here": ("Ask about the photo …", "사진에 대해 질문하세요 …", "Спросите о фотографии …"),
    "retry": ("Ask again", "다시 묻기", "Спросить снова"),
    "undo": ("Undo", "되돌리기", "Отменить"),
    "clear": ("Clear", "지우기", "Очистить"),
    "stop": ("Stop", "중지", "Стоп"),
    "settings": ("Settings", "설정", "Настройки"),
    "temperature": ("Temperature", "온도", "Температура"),
    "temperature_info": (
        "0: the same answer every time",
        "0: 항상 같은 답변",
        "0: каждый раз тот же ответ",
    ),
    "top_p": ("Top-p", "Top-p", "Top-p"),
    "top_p_info": (
        "words are drawn among the likeliest with this joint probability",
        "누적 확률이 이 값에 이르는 단어들 중에서 고릅니다",
        "слова выбираются из самых вероятных с этой общей вероятностью",
    ),
    "max_tokens": (
        "Longest answer, in tokens",
        "최대 답변 길이 (토큰)",
        "Длина ответа, не более (токенов)",
    ),
    "examples": ("Examples", "예시", "Примеры"),
    "example_photo": (
        "(with a rendered photo if you have shown none)",
        "(사진이 없으면 예시 사진을 사용)",
        "(без вашего фото — с нарисованным)",
    ),
    "decides": (
        "Where you ask {wordings}, a certified decision follows the answer.",
        "{wordings}라고 물으면 답변 뒤에 인증된 판정이 나옵니다.",
        "На вопрос {wordings} после ответа даётся сертифицированное решение.",
    ),
    "decided_sound": ("Decision: sound.", "판정: 정상.", "Решение: исправно."),
    "decided_defect": ("Decision: a defect.", "판정: 결함.", "Решение: дефект."),
    "decided_ask": (
        "Decision: a person must look.",
        "판정: 사람이 확인해야 합니다.",
        "Решение: должен посмотреть человек.",
    ),
    "photo": ("Photo", "사진", "Фото"),
    "photo_of_talk": (
        "photo {number} of this talk",
        "이 대화의 사진 {number}",
        "фото {number} этой беседы",
    ),
    "marked_photo": (
        "the photo with the boxes of the answer",
        "답변의 상자를 표시한 사진",
        "фото с рамками из ответа",
    ),
    "forgotten": (
        "The talk is longer than the model's memory ({tokens} tokens): your first {count} question(s)"
        " are forgotten, the photos are not.",
        "대화가 모델의 기억({tokens} 토큰)보다 길어 처음 질문 {count}개를 잊었습니다. 사진은 기억합니다.",
        "Беседа длиннее памяти модели ({tokens} токенов): первые вопросы ({count}) забыты, фотографии — нет.",
    ),
    "was_stopped": ("stopped", "중지됨", "остановлено"),
    "was_cut": ("cut off at its longest length", "최대 길이에서 잘림", "обрезано по наибольшей длине"),
    "was_wiped": (
        "This talk was wiped, because the tab was idle or the connection broke. You can begin a new one.",
        "탭을 오래 사용하지 않았거나 연결이 끊겨 대화가 지워졌습니다. 새로 시작할 수 있습니다.",
        "Беседа стёрта: вкладка бездействовала или связь прервалась. Можно начать новую.",
    ),
    "nothing_to_undo": (
        "There is no question to take back.",
        "되돌릴 질문이 없습니다.",
        "Нет вопроса для отмены.",
    ),
    "no_question": ("Type a question too.", "질문도 입력하세요.", "Введите и вопрос."),
    "your_photo": (
        "your photo, {width} x {height} pixels",
        "사진, {width} x {height} 픽셀",
        "ваше фото, {width} x {height} пикселей",
    ),
    "no_photo": ("Choose a photo first.", "먼저 사진을 선택하세요.", "Сначала выберите фото."),
    "find": ("Find", "찾기", "Поиск"),
    "find_words": ("What to find", "찾을 것", "Что искать"),
    "find_words_hint": ("a red star", "a red star", "a red star"),
    "find_ask": ("Then ask about each place", "찾은 곳마다 물을 질문", "Вопрос о каждом найденном месте"),
    "find_ask_hint": (
        "What is he doing? (may be empty)",
        "What is he doing? (선택)",
        "What is he doing? (необязательно)",
    ),
    "find_more": ("A picture of it, its size", "참고 사진과 크기", "Образец и размер"),
    "find_reference": (
        "A picture of it: the model puts it into words, which you can correct",
        "참고 사진: 모델이 글로 바꾸며 고칠 수 있습니다",
        "Образец: модель опишет его словами, которые можно исправить",
    ),
    "find_smallest": (
        "Its smallest size in the photo, in pixels",
        "사진에서의 최소 크기 (픽셀)",
        "Наименьший размер на фото, в пикселях",
    ),
    "find_start": ("Find", "찾기", "Искать"),
    "find_begins": ("The search begins …", "찾는 중 …", "Поиск начинается …"),
    "find_state": (
        "{done} of {total} windows, {seconds} s",
        "창 {total}개 중 {done}개, {seconds}초",
        "окон: {done} из {total}, {seconds} с",
    ),
    "find_beware": (
        "The likeliest places first. A percentage is how probable the model finds it; it can be high"
        " for a thing that is not there.",
        "가능성이 높은 순서입니다. 백분율은 모델이 보는 확률이며, 없는 것에도 높을 수 있습니다.",
        "Самые вероятные места первыми. Процент — оценка модели; она бывает высокой и там, где искомого нет.",
    ),
    "heat_map": (
        "heat map: where {words} may be",
        "열지도: {words}의 가능한 위치",
        "карта: где может быть {words}",
    ),
    "place": ("place {number}", "위치 {number}", "место {number}"),
    "similarity": ("similarity", "유사도", "сходство"),
    "odd": ("Odd one out", "다른 하나 찾기", "Что не как все"),
    "odd_intro": (
        "Which unit of an insulator string is unlike its neighbours? No model is asked, and none is needed.",
        "애자련에서 이웃과 다른 것은 어느 것인가요? 모델 없이 비교합니다.",
        "Какой элемент гирлянды не похож на соседей? Модель для этого не нужна.",
    ),
    "odd_box": (
        "Box around the string, in pixels: draw it on the photo, or type x1, y1, x2, y2",
        "애자련을 둘러싼 상자 (픽셀): 사진에 그리거나 x1, y1, x2, y2를 입력하세요",
        "Рамка вокруг гирлянды, в пикселях: нарисуйте на фото или введите x1, y1, x2, y2",
    ),
    "odd_box_hint": ("empty: the whole photo", "비우면 사진 전체", "пусто: всё фото"),
    "odd_start": ("Compare", "비교", "Сравнить"),
    "example": ("Example", "예시", "Пример"),
    "odd_none": (
        "No unit could be compared with its neighbours.",
        "이웃과 비교할 수 있는 것이 없습니다.",
        "Сравнить элементы не удалось.",
    ),
    "odd_sure": (
        "Unit {number} of {count} is unlike its neighbours (gap to the next: {gap}).",
        "{count}개 중 {number}번째가 이웃과 다릅니다 (다음과의 차이: {gap}).",
        "Элемент {number} из {count} не похож на соседей (отрыв от следующего: {gap}).",
    ),
    "odd_unsure": (
        "Unit {number} of {count} is the least like its neighbours (gap to the next: {gap}), but this"
        " is not sure: look yourself.",
        "{count}개 중 {number}번째가 이웃과 가장 다르지만 (다음과의 차이: {gap}) 확실하지 않습니다."
        " 직접 확인하세요.",
        "Меньше всех на соседей похож элемент {number} из {count} (отрыв от следующего: {gap}), но это"
        " не наверняка: проверьте сами.",
    ),
    "odd_photo": (
        "the photo with the units outlined",
        "구분된 애자를 표시한 사진",
        "фото с контурами элементов",
    ),
    "unit": ("unit {number}: {score}", "{number}번: {score}", "элемент {number}: {score}"),
    "axes": ("The string may also run along:", "가능한 다른 축:", "Гирлянда может идти и так:"),
    "axis": ("axis {number}", "축 {number}", "ось {number}"),
    "strip": (
        "The string, straightened and cut into its units",
        "곧게 펴서 나눈 애자련",
        "Гирлянда, выпрямленная и разрезанная на элементы",
    ),
    "bars": (
        "How unlike its neighbours each unit is (grey: an end, not compared)",
        "각각이 이웃과 다른 정도 (회색: 끝, 비교 안 함)",
        "Насколько каждый элемент не похож на соседей (серые — концы, не сравниваются)",
    ),
    "cut_out": (
        "Without the background: only to look at, it may cut too much",
        "배경 제거: 보기용이며 지나치게 잘릴 수 있습니다",
        "Без фона: только для просмотра, может срезать лишнее",
    ),
    "neighbours": (
        "The odd one beside its neighbours",
        "다른 하나와 그 이웃",
        "Отличающийся элемент рядом с соседями",
    ),
    "report": ("Report", "보고서", "Отчёт"),
    "report_title": (
        "How far to trust this model",
        "이 모델을 얼마나 신뢰할 수 있는가",
        "Насколько можно доверять этой модели",
    ),
    "no_report": (
        "There are no scores of this model. `llava-inspect run` or `llava-inspect score --output` make them.",
        "이 모델의 평가 결과가 없습니다. `llava-inspect run` 또는 `llava-inspect score --output`으로"
        " 만들 수 있습니다.",
        "Оценок этой модели нет. Их делают `llava-inspect run` или `llava-inspect score --output`.",
    ),
}


def text(key: str) -> I18nData:
    """Return what the browser puts into its language, for labels and static text."""
    assert key in WORDS
    return I18nData(key)


def translations(**values: object) -> gr.I18n:
    """Return all words for Gradio, with `values` in the static ones' places."""
    languages: dict[str, dict[str, str]] = {}
    for column, language in enumerate(LANGUAGES):
        languages[language] = {key: _fill(words[column], values) for key, words in WORDS.items()}
    return gr.I18n(**languages)


class Words:
    """What the server says, in the language of a browser."""

    def __init__(self, accept_language: str) -> None:
        """Choose the language; `accept_language` is the request's header (RFC 9110, 12.5.4)."""
        wanted = [part.split(";")[0].strip().lower()[:2] for part in accept_language.split(",")]
        language = next((code for code in wanted if code in LANGUAGES), "en")
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence."""
        return WORDS[key][self._column].format(**values)


def words_for(request: gr.Request) -> Words:
    """Return the words for whoever sent a request."""
    return Words(request.headers.get("accept-language", ""))


def _fill(sentence: str, values: dict[str, object]) -> str:
    for name, value in values.items():
        sentence = sentence.replace(f"{{{name}}}", str(value))
    return sentence
