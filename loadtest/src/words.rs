//! The vocabulary of synthetic prompts.

/// One word a byte value: short and common, so that a byte-pair tokenizer takes about one token for each.
pub(crate) const WORDS: [&str; 256] = [
    "able", "about", "above", "across", "act", "add", "after", "again", "age", "ago", "air", "all", "also",
    "always", "among", "animal", "answer", "any", "apple", "area", "arm", "army", "art", "ask", "atom",
    "away", "baby", "back", "bad", "bag", "ball", "band", "bank", "base", "bath", "bear", "beat", "bed",
    "bell", "best", "bird", "black", "blood", "blue", "board", "boat", "body", "bone", "book", "born",
    "both", "box", "boy", "bread", "break", "bridge", "bright", "bring", "brown", "build", "burn", "bus",
    "busy", "buy", "call", "came", "camp", "card", "care", "carry", "case", "cat", "catch", "cause", "cell",
    "center", "chair", "change", "check", "chief", "child", "circle", "city", "class", "clean", "clear",
    "climb", "clock", "close", "cloth", "cloud", "coast", "coat", "cold", "color", "come", "cook", "cool",
    "copy", "corn", "cost", "cotton", "count", "course", "cover", "cross", "crowd", "cry", "cut", "dance",
    "danger", "dark", "day", "dead", "deal", "dear", "death", "deep", "desert", "design", "did", "die",
    "direct", "doctor", "dog", "dollar", "door", "double", "down", "draw", "dream", "dress", "drink",
    "drive", "drop", "dry", "duck", "each", "ear", "early", "earth", "ease", "east", "eat", "edge", "egg",
    "eight", "else", "end", "engine", "enter", "equal", "even", "event", "ever", "exact", "eye", "face",
    "fact", "fair", "fall", "family", "far", "farm", "fast", "fat", "father", "favor", "fear", "feed",
    "feel", "feet", "fell", "felt", "few", "field", "fight", "fill", "final", "find", "fine", "finger",
    "finish", "fire", "first", "fish", "fit", "five", "flat", "floor", "flow", "flower", "fly", "follow",
    "food", "foot", "force", "forest", "form", "four", "free", "fresh", "friend", "front", "fruit", "full",
    "fun", "game", "garden", "gas", "gave", "get", "girl", "give", "glad", "glass", "gold", "gone", "good",
    "got", "grand", "grass", "gray", "great", "green", "ground", "group", "grow", "guess", "guide", "gun",
    "hair", "half", "hand", "happy", "hard", "hat", "heart", "heat", "heavy", "help", "high", "hill",
    "history", "hit", "hold", "hole", "home", "hope", "horse", "hot", "hour", "house", "huge", "human",
    "hunt",
];
