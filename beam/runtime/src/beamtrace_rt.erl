%% What instrumented code calls. Builds of one source take each other's place while instrumented code runs (docs/transform.md, "The runtime"):
%%   off            every function does nothing and `enter` answers 0, which tells the instrumented function not to call again for this frame
%%   ON, PORTABLE   each event goes through a function of its own (`entered`, `left` …) that does nothing: there the portable tracer has its breakpoints
%%   ON, NATIVE     the native tracer's library writes the event; its `enter` answers 0 where no trace wants the frame
%%   ON, both       traces of both tracers on one node
%% Nothing here may raise, block or send.
-module(beamtrace_rt).

-export([enter/2, enter/3, enter/4, enter/5, enter/6, enter/7, enter/8, enter_list/3]).
-export([leave/4, tail/3, exception/6]).
-export([info/0]).

-type id() :: non_neg_integer().
-type site() :: non_neg_integer().
-export_type([id/0, site/0]).

%% What instrumented modules rely on; another number is another runtime.
-define(ABI, 1).

-ifdef(NATIVE).
-ifdef(PORTABLE).
-define(BUILD, both).
-else.
-define(BUILD, native).
-endif.
-else.
-ifdef(ON).
-define(BUILD, portable).
-else.
-define(BUILD, off).
-endif.
-endif.

-ifdef(ON).

-export([entered/4, left/4, tail_called/3, raised/6]).

-spec entered(id(), module(), site(), [term()]) -> ok.
entered(_, _, _, _) -> ok.

-spec left(id(), module(), site(), term()) -> ok.
left(_, _, _, _) -> ok.

-spec tail_called(id(), module(), site()) -> ok.
tail_called(_, _, _) -> ok.

-spec raised(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
raised(_, _, _, _, _, _) -> ok.

-endif.

-ifdef(NATIVE).
-ifdef(PORTABLE).

%% The library's ids are even. A frame that it does not want has one of its own.
-define(ENTER(Native, Arguments), begin
    Id =
        case Native of
            0 -> 2 * erlang:unique_integer([positive]) + 1;
            Given -> Given
        end,
    _ = ?MODULE:entered(Id, M, S, Arguments),
    Id
end).
-define(TELL(Terms, Native, Portable), begin
    _ = Native,
    Portable
end).

-else.

-define(ENTER(Native, Arguments), Native).
-define(TELL(Terms, Native, Portable), Native).

-endif.
-else.
-ifdef(ON).

-define(ENTER(Native, Arguments), begin
    Id = erlang:unique_integer([positive]),
    _ = ?MODULE:entered(Id, M, S, Arguments),
    Id
end).
-define(TELL(Terms, Native, Portable), Portable).

-else.

-define(ENTER(Native, Arguments), begin
    _ = {M, S, fun() -> Arguments end},
    0
end).
-define(TELL(Terms, Native, Portable), begin
    _ = Terms,
    ok
end).

-endif.
-endif.

-spec enter(module(), site()) -> id().
enter(M, S) -> ?ENTER(beamtrace_nif:enter(M, S), []).

-spec enter(module(), site(), term()) -> id().
enter(M, S, A) -> ?ENTER(beamtrace_nif:enter(M, S, A), [A]).

-spec enter(module(), site(), term(), term()) -> id().
enter(M, S, A, B) -> ?ENTER(beamtrace_nif:enter(M, S, A, B), ([A, B])).

-spec enter(module(), site(), term(), term(), term()) -> id().
enter(M, S, A, B, C) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C), ([A, B, C])).

-spec enter(module(), site(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D), ([A, B, C, D])).

-spec enter(module(), site(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D, E), ([A, B, C, D, E])).

-spec enter(module(), site(), term(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E, F) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D, E, F), ([A, B, C, D, E, F])).

-spec enter_list(module(), site(), [term()]) -> id().
enter_list(M, S, Arguments) -> ?ENTER(beamtrace_nif:enter_list(M, S, Arguments), Arguments).

-spec leave(id(), module(), site(), term()) -> ok.
leave(Id, M, S, Result) -> ?TELL(({Id, M, S, Result}), beamtrace_nif:leave(Id, M, S, Result), ?MODULE:left(Id, M, S, Result)).

-spec tail(id(), module(), site()) -> ok.
tail(Id, M, S) -> ?TELL(({Id, M, S}), beamtrace_nif:tail(Id, M, S), ?MODULE:tail_called(Id, M, S)).

-spec exception(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
exception(Id, M, S, Class, Reason, Stack) ->
    ?TELL(({Id, M, S, Class, Reason, Stack}), beamtrace_nif:exception(Id, M, S, Class, Reason, Stack), ?MODULE:raised(Id, M, S, Class, Reason, Stack)).

%% Whose module this is, and which build: how a session knows what it finds on a node.
-spec info() -> {beamtrace_rt, pos_integer(), off | portable | native | both}.
info() -> {beamtrace_rt, ?ABI, ?BUILD}.
