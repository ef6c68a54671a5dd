"""What owners type: a member, a key."""

from django import forms
from django.contrib.auth import get_user_model

from auditweb.teams.keys import SCOPES
from auditweb.teams.models import Role


class MemberForm(forms.Form):
    """A person by user name, and their role."""

    username = forms.CharField(
        label="User name",
        max_length=150,
        validators=[get_user_model().username_validator],
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(label="Role", choices=Role.choices, initial=Role.VIEWER)


class KeyForm(forms.Form):
    """A new API key."""

    name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    scopes = forms.MultipleChoiceField(
        label="May",
        choices=[(scope, f"{scope}: {words}") for scope, words in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.IntegerField(label="Days until it expires", min_value=1, max_value=3650, required=False, initial=365)
