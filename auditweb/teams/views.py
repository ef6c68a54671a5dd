"""Pages about people: the one-time link, the team, its keys, its audit log."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from auditweb.teams import access, audit, keys, links, members
from auditweb.teams.forms import KeyForm, MemberForm
from auditweb.teams.models import AuditRecord, Role

PAGE = 100  # audit records
INVITED_MINUTES = 7 * 24 * 60  # how long the link of a new member works


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("token")
def sign_in_link(request, token):
    """Ask on GET, sign in on POST: mail scanners and previews open links, too, and must not use them up."""
    if request.method != "POST":
        user = links.peek(token)
        if user is None:
            return render(request, "teams/link_over.html", status=404)
        return render(request, "account/link.html", {"link_user": user})
    with transaction.atomic():
        user = links.use(token)
        if user is None:
            return render(request, "teams/link_over.html", status=404)
        request.signed_in_by = "link"
        # A new session id in any case: whoever knew the old one stays outside.
        request.session.flush()
        login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    if not user.has_usable_password():
        messages.info(request, "You are signed in. To come back without a link, set a password in your account's menu.")
    return redirect(settings.LOGIN_REDIRECT_URL)


@login_required
@require_GET
def member_list(request):
    team = _team(request)
    if team is None:
        return _choose(request)
    access.require(request.user, team, "read")
    return _team_page(request, team)


@login_required
@require_POST
def member_add(request):
    team = _managed(request)
    form = MemberForm(request.POST)
    if not form.is_valid():
        return _team_page(request, team, status=400, member_form=form)
    try:
        membership, created = members.add(team, form.cleaned_data["username"], form.cleaned_data["role"], by=request)
    except ValueError as e:
        form.add_error("username", str(e))
        return _team_page(request, team, status=400, member_form=form)
    if created:
        # Only for a new person: a link for somebody who is in another team, too, would let this owner in there.
        link = request.build_absolute_uri(links.make(membership.user, INVITED_MINUTES))
        return _team_page(request, team, new_member=membership, new_link=link)
    messages.success(request, f"{membership.user.get_username()} is a member with the role {membership.role}.")
    return _back(team)


@login_required
@require_POST
def member_change(request):
    team, membership = _membership(request)
    role = request.POST.get("role")
    if role not in Role.values:
        raise Http404("No such role.")
    try:
        members.change(membership, role, by=request)
    except members.LastOwner as e:
        messages.error(request, str(e))
    return _back(team)


@login_required
@require_POST
def member_remove(request):
    team, membership = _membership(request)
    try:
        members.remove(membership, by=request)
    except members.LastOwner as e:
        messages.error(request, str(e))
    if membership.user_id == request.user.pk and access.role_of(request.user, team) is None:
        return redirect(settings.LOGIN_REDIRECT_URL)
    return _back(team)


@login_required
@require_POST
@sensitive_variables("text")
def key_create(request):
    team = _managed(request)
    form = KeyForm(request.POST)
    if not form.is_valid():
        return _team_page(request, team, status=400, key_form=form)
    data = form.cleaned_data
    key, text = keys.create(team, data["name"], data["scopes"], by=request, days=data["days"])
    # In the answer itself, not after a redirect: that would mean to store the key somewhere in clear.
    return _team_page(request, team, new_key=key, new_key_text=text)


@login_required
@require_POST
def key_revoke(request, public_id):
    team = _managed(request)
    keys.revoke(get_object_or_404(team.api_keys, public_id=public_id), by=request)
    messages.success(request, "The key is revoked.")
    return _back(team)


@login_required
@require_safe
def audit_log(request):
    """What happened in the team, newest first; filters ``person`` and ``action``, pages by ``before``."""
    team = _team(request)
    if team is None:
        return _choose(request)
    access.require(request.user, team, "manage")
    audit.viewed(request, ("audit_log", team.public_id, "audit log"), team)
    records = AuditRecord.objects.visible_to_owner(request.user, team)
    chosen = {name: request.GET.get(name, "").strip() for name in ("person", "action")}
    if any("\0" in value for value in chosen.values()):
        raise Http404("No such filter.")
    if chosen["person"]:
        records = records.filter(actor_name=chosen["person"])
    if chosen["action"]:
        records = records.filter(action=chosen["action"])
    before = request.GET.get("before", "")
    if before:
        if not before.isascii() or not before.isdigit() or len(before) > 18:
            raise Http404("No such page.")
        records = records.filter(id__lt=int(before))
    page = list(records[: PAGE + 1])
    more = len(page) > PAGE
    page = page[:PAGE]
    everything = AuditRecord.objects.visible_to_owner(request.user, team).order_by()
    kept = {"team": team.slug, **{name: value for name, value in chosen.items() if value}}
    context = {
        "of_team": team,
        "records": page,
        "chosen": chosen,
        "people": sorted(everything.values_list("actor_name", flat=True).distinct()),
        "actions": sorted(everything.values_list("action", flat=True).distinct()),
        "older": f"?{urlencode({**kept, 'before': page[-1].pk})}" if more else "",
        "newest": f"?{urlencode(kept)}" if before else "",
    }
    return render(request, "teams/audit_log.html", context)


def _team_page(request, team, status=200, **extra):
    role = access.role_of(request.user, team)
    context = {
        "of_team": team,
        "my_role": role,
        "memberships": _people(team).order_by("user__username"),
        "roles": Role.choices,
    }
    if role == Role.OWNER:
        keys_of_team = team.api_keys.select_related("created_by").order_by("name", "created")
        context["api_keys"] = keys_of_team.annotate(last_refused_at=AuditRecord.objects.last_refusal())
        context["member_form"] = MemberForm()
        context["key_form"] = KeyForm(auto_id="id_key_%s")
    return render(request, "teams/member_list.html", context | extra, status=status)


def _team(request):
    """The team of the request; None for whoever has to say which (or is in none)."""
    if "team" not in request.GET and access.teams_of(request.user).count() != 1:
        return None
    return access.team_of(request)


def _choose(request):
    return render(request, "teams/team_choice.html", {"choices": access.teams_of(request.user)})


def _managed(request):
    team = access.team_of(request, request.POST.get("team"))
    access.require(request.user, team, "manage")
    return team


def _membership(request):
    team = _managed(request)
    name = request.POST.get("username", "")
    if "\0" in name:
        raise Http404("No such member.")
    return team, get_object_or_404(_people(team), user__username=name)


def _people(team):
    return team.memberships.filter(user__is_service=False).select_related("user")


def _back(team):
    return redirect(f"{reverse('member-list')}?{urlencode({'team': team.slug})}")
