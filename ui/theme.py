"""How the app looks: system fonts, one accent, light and dark. Nothing is fetched."""

import gradio as gr
from gradio.themes.utils import colors, sizes

from studio import assets

_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
_ACCENT = colors.Color(
    name="studio",
    c50="#eef4ff",
    c100="#dbe6fe",
    c200="#bfd3fe",
    c300="#93b4fd",
    c400="#6390fa",
    c500="#3d6cf0",
    c600="#2a54db",
    c700="#2243b4",
    c800="#203a8c",
    c900="#1f356f",
    c950="#172145",
)
_COLORS = {
    "body_background_fill": "#f6f7f9",
    "body_background_fill_dark": "#0e1116",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#161a21",
    "background_fill_secondary": "#f6f7f9",
    "background_fill_secondary_dark": "#12161c",
    "block_background_fill": "*background_fill_primary",
    "block_background_fill_dark": "*background_fill_primary",
    "block_border_width": "1px",
    "border_color_primary": "#e3e6eb",
    "border_color_primary_dark": "#272d37",
    "block_label_background_fill": "transparent",
    "block_label_background_fill_dark": "transparent",
    "block_title_text_weight": "600",
    "block_info_text_size": "*text_sm",
    "block_shadow": "none",
    "input_background_fill": "#f9fafb",
    "input_background_fill_dark": "#0f1319",
    "input_border_width": "1px",
    "button_border_width": "1px",
    "checkbox_border_width": "1px",
    "button_large_text_weight": "600",
    "button_large_text_size": "*text_md",
    "button_large_padding": "9px 16px",
    "block_title_text_color": "*body_text_color",
    "block_title_text_color_dark": "*body_text_color",
    "block_title_text_size": "*text_sm",
    "block_info_text_color": "*neutral_500",
    "block_info_text_color_dark": "*neutral_400",
    "input_border_color": "#d5dae2",
    "input_border_color_dark": "#303846",
    "input_border_color_focus": "*primary_500",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover_dark": "*primary_400",
    "button_primary_text_color": "#ffffff",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_dark": "#1d232c",
    "button_secondary_border_color": "#d5dae2",
    "button_secondary_border_color_dark": "#303846",
    "layout_gap": "14px",
}
"""Gradio's own names for what it draws, light and dark."""
PICK = """
element.addEventListener('click', event => {
  const picked = event.target.closest('[data-pick]');
  if (picked) trigger('click', {pick: picked.dataset.pick});
});
"""
"""Lets a person pick a card."""
SCRIPT = """
() => {
  const fields = new Map();
  const clear = note => {
    const field = fields.get(note);
    fields.delete(note);
    if (!field || [...fields.values()].includes(field)) return;
    field.classList.remove('bad');
    field.querySelector('.why')?.remove();
  };
  const mark = note => {
    const page = note.closest('[role=tabpanel]') ?? document, name = CSS.escape(note.dataset.field);
    const field = page.querySelector(`.field-${name}, .field-method-${name}`);
    if (!field) return;
    const why = Object.assign(document.createElement('p'), {className: 'why', textContent: note.textContent.split(' Available: ')[0]});
    const help = field.querySelector('.info-text') ?? field.querySelector('[data-testid=block-info]');
    fields.set(note, field);
    field.querySelector('.why')?.remove();
    field.classList.add('bad');
    if (help) help.after(why); else field.append(why);
  };
  new MutationObserver(() => {
    for (const note of [...fields.keys()]) if (!note.isConnected) clear(note);
    for (const note of document.querySelectorAll('.note[data-field]:not([data-field=""])'))
      if (!fields.has(note) && !note.dataset.seen) { mark(note); if (fields.has(note)) note.dataset.seen = 'yes'; }
  }).observe(document.body, {childList: true, subtree: true});
  document.addEventListener('input', event => {
    for (const [note, field] of [...fields]) if (field.contains(event.target)) clear(note);
  }, true);
  for (const kind of ['keydown', 'keypress']) document.addEventListener(kind, event => {
    if (event.key !== 'Enter' || event.isComposing || !event.target.matches('#prompt textarea')) return;
    event.stopPropagation();
    if (event.shiftKey) return;
    event.preventDefault();
    if (kind === 'keydown') document.getElementById('draw').click();
  }, true);
}
"""
"""Says what is wrong at the field that an error names, until that field or the error changes; lets Enter in the prompt draw
and Shift with Enter begin a line (Gradio has it the other way round where there are several lines)."""


def theme() -> gr.themes.Base:
    """Colors, sizes and fonts of Gradio's own components."""
    made = gr.themes.Base(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        font=_SANS,
        font_mono=_MONO,
    )
    return made.set(**_COLORS)


def css() -> str:
    """The rest: our own pieces of page."""
    return assets.path("css/app.css").read_text(encoding="utf-8")
